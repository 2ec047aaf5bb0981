"""All YAML that llmsim reads: plain values within bounds, each key once. What is more is refused before it is built.

Aliases are counted at what they stand for: 400 bytes of them can stand for gigabytes.
"""

from __future__ import annotations

from typing import Any

import yaml

from llmsim.errors import ConfigError

MOST_BYTES = 1_000_000
MOST_NODES = 10_000
"""Values and keys, after aliases; a cluster of a hundred groups has about two thousand."""
MOST_DEPTH = 60
MOST_DIGITS = 64
"""Characters of a number."""

TAG = "tag:yaml.org,2002:"
SCALARS = ("null", "bool", "int", "float", "str")
PLAIN = (*SCALARS, "map", "seq")
NAMES = {"map": "mapping", "seq": "list"}


def load_yaml(text: str, where: str) -> Any:
    """The value in a YAML text: None, bool, int, float, str, lists and dicts.

    Raises ConfigError, naming `where`, for anything else, and past the bounds.
    """
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{where}: is too long for YAML: of {len(text):,} characters {MOST_BYTES:,} are read at most")
    try:
        loader = _Bounded(text)
    except yaml.YAMLError as error:  # a character that no text has
        raise ConfigError(f"{where}: is no YAML: {' '.join(str(error).split())}") from error
    loader.name = where
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _Measure(text, loader).size(node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: is no YAML: {' '.join(str(error).split())[:400]}") from error
    except RecursionError:
        raise ConfigError(f"{where}: is nested deeper than {MOST_DEPTH} levels") from None
    except ValueError as error:  # of a number or date that Python does not take
        raise ConfigError(f"{where}: is no YAML: {error}") from None
    finally:
        loader.dispose()


class _Bounded(yaml.SafeLoader):
    """A SafeLoader that stops at the first node too many, and keeps no key that is given twice."""

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MOST_NODES:
            raise _too(f"there are more than {MOST_NODES:,} values", self.get_mark())
        return super().compose_node(parent, index)


class _Measure:
    """Walks nodes once each, and adds up what aliases make of them."""

    def __init__(self, text: str, loader: yaml.SafeLoader) -> None:
        self._text, self._loader = text, loader
        self._known: dict[int, tuple[int, int]] = {}
        self._open: set[int] = set()

    def size(self, node: yaml.Node, depth: int = 0) -> tuple[int, int]:
        """(nodes, characters) of a node after aliases."""
        if id(node) in self._known:
            return self._known[id(node)]
        kind = node.tag.removeprefix(TAG)
        if kind not in PLAIN:
            raise _too(f"{self._words(node)} is a {kind.lstrip('!')}, no plain value; quote it", node.start_mark)
        if id(node) in self._open:
            raise _too("a value holds itself", node.start_mark)
        if depth > MOST_DEPTH:
            raise _too(f"values are nested deeper than {MOST_DEPTH} levels", node.start_mark)
        if isinstance(node, yaml.ScalarNode):
            if kind in ("int", "float") and len(node.value) > MOST_DIGITS:
                raise _too(f"a number of {len(node.value):,} digits, {self._words(node)}", node.start_mark)
            nodes, characters = 1, len(node.value)
        else:
            self._open.add(id(node))
            if isinstance(node, yaml.MappingNode):
                self._check_keys(node)
            inner = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            sizes = [self.size(part, depth + 1) for part in inner]
            nodes, characters = 1 + sum(size[0] for size in sizes), sum(size[1] for size in sizes)
            self._open.remove(id(node))
        if nodes > MOST_NODES or characters > MOST_BYTES:
            what = f"{nodes:,} values" if nodes > MOST_NODES else f"{characters:,} characters"
            raise _too(f"aliases stand for {what}; {MOST_NODES:,} are read at most", node.start_mark)
        self._known[id(node)] = nodes, characters
        return nodes, characters

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[Any] = set()
        for key, _ in node.value:
            kind = key.tag.removeprefix(TAG)
            if kind == "merge":  # `<<: *other` is no key of its own
                self._known[id(key)] = 1, 0
                continue
            if kind not in SCALARS or not isinstance(key, yaml.ScalarNode):
                raise _too(f"{self._words(key)} is a {NAMES.get(kind, kind)}, which cannot be a key", key.start_mark)
            self.size(key)
            value = self._loader.construct_object(key)
            if value in seen:
                raise _too(f"key {value!r:.80} is given twice", key.start_mark)
            seen.add(value)

    def _words(self, node: yaml.Node) -> str:
        words = " ".join(self._text[node.start_mark.index : node.end_mark.index][:200].split())
        return words if len(words) <= 60 else f"{words[:60]}..."


def _too(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
