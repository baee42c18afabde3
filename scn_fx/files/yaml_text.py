# SPDX-License-Identifier: Apache-2.0
"""YAML texts, read with the same strictness as JSON. Needs PyYAML."""

from __future__ import annotations

from typing import Any

import yaml

from scn_fx.files.json_text import DEEPEST, LONGEST_NUMBER, TextError, decoded

__all__ = ["parse_yaml"]

_MOST_VALUES = 100_000
"""Of a document with its aliases written out. Ten lines of aliases to aliases are billions of values."""
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


def parse_yaml(data: bytes) -> Any:
    """The content of a YAML document in UTF-8; nothing of it is executed.

    Raises TextError for text that is none, a mapping with a key twice, numbers of more than 64 characters,
    more than 64 levels, aliases that contain themselves, and more than 100,000 values (aliases written out).
    """
    text = decoded(data)
    loader: Any = None
    try:
        # The parser's events come one after the other; what follows them is recursive.
        _check_depth(text)
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _count(root, {})
        return loader.construct_document(root)
    except TextError:
        raise
    except yaml.YAMLError as error:
        raise TextError(" ".join(str(error).split())) from error
    except Exception as error:  # PyYAML's constructors raise what int, float and datetime raise
        raise TextError(str(error) or type(error).__name__) from error
    finally:
        if loader is not None:
            loader.dispose()


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise TextError(f"it has more than {DEEPEST} levels of lists and mappings in each other")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _count(node: Any, known: dict[int, int | None]) -> int:
    """Values of a node with its aliases written out; checks keys and numbers on the way."""
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise TextError("an alias contains itself")
        return count
    known[id(node)] = None
    total = 1
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE]
        twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
        if twice:
            raise TextError(f"a mapping has the key {twice[0][:60]!r} twice; remove one of the two")
        total += sum(_count(child, known) for pair in node.value for child in pair)
    elif isinstance(node, yaml.SequenceNode):
        total += sum(_count(child, known) for child in node.value)
    elif node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
        raise TextError(f"a number of {len(node.value)} characters; {LONGEST_NUMBER} are the most")
    if total > _MOST_VALUES:
        raise TextError(f"it has more than {_MOST_VALUES} values, its aliases written out")
    known[id(node)] = total
    return total
