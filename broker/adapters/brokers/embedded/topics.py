"""The algebra of MQTT topics and filters (MQTT 3.1.1, section 4.7)."""


def matches(filter_: str, topic: str) -> bool:
    """Whether a subscription to `filter_` receives `topic`."""
    if topic.startswith("$") and filter_[:1] in ("+", "#"):
        return False
    levels = topic.split("/")
    wanted = filter_.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position == len(levels) or level not in ("+", levels[position]):
            return False
    return len(wanted) == len(levels)


def is_filter(text: str) -> bool:
    """Whether `text` is a well-formed filter: wildcards stand alone, `#` only at the end."""
    levels = text.split("/")
    if not text or "\0" in text or "#" in levels[:-1]:
        return False
    return all(level in ("+", "#") or not set("+#") & set(level) for level in levels)


def covers(outer: str, inner: str) -> bool:
    """Whether every topic that the filter `inner` receives is received by `outer` too."""
    inner_levels = inner.split("/")
    outer_levels = outer.split("/")
    for position, level in enumerate(outer_levels):
        if level == "#":
            return True
        if position == len(inner_levels) or inner_levels[position] == "#":
            return False
        if level not in ("+", inner_levels[position]):
            return False
    return len(outer_levels) == len(inner_levels)


def literal_prefix(filter_: str) -> str:
    """What every topic that `filter_` receives begins with.

    The level before a final `#` counts without its slash: `a/#` receives `a` itself.
    """
    levels = filter_.split("/")
    for position, level in enumerate(levels):
        if level in ("+", "#"):
            return "/".join(levels[:position])
    return filter_


class FilterTree:
    """A set of filters that finds those receiving a topic without looking at all of them."""

    def __init__(self) -> None:
        self._children: dict[str, FilterTree] = {}
        self._filter: str | None = None

    def add(self, filter_: str) -> None:
        """Puts `filter_` into the set."""
        node = self
        for level in filter_.split("/"):
            node = node._children.setdefault(level, FilterTree())
        node._filter = filter_

    def discard(self, filter_: str) -> None:
        """Takes `filter_` out of the set, and gives back the room it took."""
        path = [self]
        levels = filter_.split("/")
        for level in levels:
            child = path[-1]._children.get(level)
            if child is None:
                return
            path.append(child)
        path[-1]._filter = None
        for parent, level in zip(reversed(path[:-1]), reversed(levels), strict=True):
            child = parent._children[level]
            if child._children or child._filter is not None:
                return
            del parent._children[level]

    def matching(self, topic: str) -> list[str]:
        """The filters of the set that receive `topic`."""
        found: list[str] = []
        self._collect(topic.split("/"), 0, found)
        return [filter_ for filter_ in found if matches(filter_, topic)]

    def _collect(self, levels: list[str], position: int, found: list[str]) -> None:
        rest = self._children.get("#")
        if rest is not None and rest._filter is not None:
            found.append(rest._filter)
        if position == len(levels):
            if self._filter is not None:
                found.append(self._filter)
            return
        for name in (levels[position], "+"):
            child = self._children.get(name)
            if child is not None:
                child._collect(levels, position + 1, found)
