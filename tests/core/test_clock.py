"""Ticks: absolute times, order within an instant, and ends that are put earlier."""

from __future__ import annotations

from simpy.events import NORMAL

from llmsim.core.clock import Clock, Tick


def waiting_for(env: Clock, tick: Tick, name: str, seen: list[tuple[str, int]]) -> None:
    def process():
        yield tick
        seen.append((name, env.now))

    env.process(process())


def test_late_ticks_come_after_everything_else_of_their_instant():
    env, seen = Clock(), []
    waiting_for(env, Tick(env, 5), "end of an iteration", seen)
    waiting_for(env, Tick(env, 5, NORMAL), "arrival", seen)
    waiting_for(env, env.timeout(5), "timeout", seen)
    env.run()
    assert seen == [("arrival", 5), ("timeout", 5), ("end of an iteration", 5)]


def test_a_moved_tick_wakes_whoever_waits_once_and_at_the_new_time():
    env, seen = Clock(), []
    end = Tick(env, 100)
    waiting_for(env, end, "replica", seen)

    def arrivals():
        nonlocal end
        yield Tick(env, 10, NORMAL)
        end = end.moved(40)
        yield Tick(env, 20, NORMAL)
        end = end.moved(30)

    env.process(arrivals())
    env.run()
    assert seen == [("replica", 30)]
