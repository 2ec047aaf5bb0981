"""Names to policies: built-in, module:Class, file.py:Class, with options that are checked."""

from __future__ import annotations

import pytest

from llmsim.errors import ConfigError
from llmsim.schedulers.base import Scheduler
from llmsim.schedulers.sarathi import Sarathi
from llmsim.spec import registry

POLICY = """
from dataclasses import dataclass
from llmsim import ContinuousBatching

@dataclass
class Mine(ContinuousBatching):
    {extra}
    taste: float = 1.0

class Unrelated: pass
"""


def policy_file(folder, extra="flavour: str = 'a'"):
    folder.mkdir(exist_ok=True)
    path = folder / "mine.py"
    path.write_text(POLICY.format(extra=extra))
    return path


@pytest.mark.parametrize("kind", registry.BUILT_IN)
def test_every_built_in_name_resolves_and_builds(kind):
    for name in registry.names(kind):
        assert registry.build(kind, name).__class__ is registry.resolve(kind, name)


def test_a_line_a_mapping_and_an_object_make_the_same_policy():
    made = Sarathi(chunk_size=64, order="spf")
    assert registry.build("scheduler", "sarathi,chunk_size=64,order=spf") == made
    assert registry.build("scheduler", {"name": "sarathi", "chunk_size": 64, "order": "spf"}) == made
    assert registry.build("scheduler", "llmsim.schedulers.sarathi:Sarathi,chunk_size=64,order=spf") == made
    assert registry.build("scheduler", made) is made


def test_files_of_one_name_in_two_folders_do_not_collide(tmp_path):
    one, two = policy_file(tmp_path / "a"), policy_file(tmp_path / "b", "other: int = 2")
    first, second = registry.build("scheduler", f"{one}:Mine"), registry.build("scheduler", f"{two}:Mine")
    assert hasattr(first, "flavour")
    assert hasattr(second, "other")
    assert isinstance(first, Scheduler)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("sarati", "unknown scheduler 'sarati'. Did you mean 'sarathi'?"),
        ("nowhere.py:X", "no file nowhere.py"),
        ("llmsim.nothing:X", "no module 'llmsim.nothing'"),
        ("llmsim.schedulers.sarathi:Sarati", "has no class 'Sarati'. Did you mean 'Sarathi'?"),
        ("llmsim.core.kvcache:KVCache", "'KVCache' is no Scheduler"),
        ("sarathi,chunk_sizes=5", "[scheduler sarathi] has no option 'chunk_sizes'. Did you mean 'chunk_size'?"),
        ("sarathi,chunk_size=big", "chunk_size must be a whole number but got 'big'"),
        ("sarathi,dynamic_chunks=1", "dynamic_chunks must be true or false but got 1"),
        ("sarathi,spf", "'spf' is not option=value"),
        ("", "a scheduler is a name or a mapping"),
        ({"chunk_size": 5}, "a scheduler needs a name"),
        ({"name": "sarathi", "chunk_size": 0}, "chunk_size must be at least 1 but got 0"),
    ],
)
def test_what_cannot_be_built_is_explained(choice, said):
    with pytest.raises(ConfigError) as caught:
        registry.build("scheduler", choice)
    assert said in str(caught.value)


def test_an_error_in_the_users_file_names_the_file_and_the_error(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import does_not_exist\n")
    with pytest.raises(ConfigError, match=r"broken\.py cannot be imported: ModuleNotFoundError: .*does_not_exist"):
        registry.build("scheduler", f"{path}:X")


def test_a_class_that_is_no_policy_is_refused_with_those_that_are(tmp_path):
    path = policy_file(tmp_path / "c")
    with pytest.raises(ConfigError, match=r"'Unrelated' is no Scheduler\. Known: ContinuousBatching, Mine"):
        registry.build("scheduler", f"{path}:Unrelated")
