"""A disk whose power can be cut: what was written, and what of it is certain to be there after.

POSIX promises little: content is on the disk after the file's fsync, a name after its directory's.
What wasn't synced may be there or not, names and contents independently. `Recording` notes what a
program does to a folder; `Disk` replays part of it and lays down what a cut may leave.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass
class File:
    """A file's content, and what of it is synced."""

    content: bytes = b""
    synced: bytes = b""


@dataclass
class Link:
    """A symbolic link; it has no content that could be lost."""

    target: str


@dataclass
class Directory:
    """Names, and those that are synced."""

    names: dict[str, "Node"] = field(default_factory=dict)
    synced: dict[str, "Node"] = field(default_factory=dict)


Node = File | Link | Directory


@dataclass(frozen=True)
class Step:
    """One thing that was done, with paths relative to the folder."""

    kind: str
    path: str
    other: str = ""
    data: bytes = b""


@dataclass(frozen=True)
class Luck:
    """What of the unsynced is there after the cut."""

    names: frozenset[int]
    """The depths (the folder's is 0) of the directories whose unsynced names are there or gone."""
    share: float
    """How much of an unsynced content is there, from 0 to 1."""


ALL_DEPTHS = frozenset(range(8))
Tree = tuple[tuple[str, "bytes | str | Tree"], ...]
"""What a folder holds, by name: files as bytes, links as their targets, folders as trees."""


class Disk:
    """What is on the disk after some steps."""

    def __init__(self, steps: Sequence[Step]) -> None:
        self._root = Directory()
        for step in steps:
            getattr(self, f"_{step.kind}")(step)

    def left(self, luck: Luck) -> Tree:
        """What a cut leaves, if that is one's luck."""
        return _left(self._root, luck, 0)

    def _find(self, path: str) -> Node:
        node: Node = self._root
        for part in Path(path).parts:
            assert isinstance(node, Directory)
            node = node.names[part]
        return node

    def _parent(self, path: str) -> tuple[dict[str, Node], str]:
        directory = self._find(str(Path(path).parent))
        assert isinstance(directory, Directory)
        return directory.names, Path(path).name

    def _create(self, step: Step) -> None:
        names, name = self._parent(step.path)
        names[name] = File()

    def _write(self, step: Step) -> None:
        node = self._find(step.path)
        assert isinstance(node, File)
        node.content += step.data

    def _fsync(self, step: Step) -> None:
        node = self._find(step.path)
        if isinstance(node, File):
            node.synced = node.content
        elif isinstance(node, Directory):
            node.synced = dict(node.names)

    def _mkdir(self, step: Step) -> None:
        names, name = self._parent(step.path)
        names[name] = Directory()

    def _symlink(self, step: Step) -> None:
        names, name = self._parent(step.path)
        names[name] = Link(step.other)

    def _rename(self, step: Step) -> None:
        source, old = self._parent(step.path)
        target, new = self._parent(step.other)
        target[new] = source.pop(old)

    def _remove(self, step: Step) -> None:
        names, name = self._parent(step.path)
        del names[name]


def _left(directory: Directory, luck: Luck, depth: int) -> Tree:
    names = directory.names if depth in luck.names else directory.synced
    return tuple((name, _left_of(names[name], luck, depth + 1)) for name in sorted(names))


def _left_of(node: Node, luck: Luck, depth: int) -> "bytes | str | Tree":
    match node:
        case Directory():
            return _left(node, luck, depth)
        case Link(target):
            return target
        case File(content, synced):
            return max(synced, content[: int(len(content) * luck.share)], key=len)


def lay_down(folder: Path, tree: Tree) -> None:
    """Makes `folder`, which isn't there, what the tree says."""
    folder.mkdir(0o700)
    for name, node in tree:
        path = folder / name
        match node:
            case bytes():
                path.touch(0o600)
                path.write_bytes(node)
            case str():
                path.symlink_to(node)
            case _:
                lay_down(path, node)


class Recording:
    """The steps that were done to a folder through `os` since it began."""

    def __init__(self, folder: Path) -> None:
        self.steps: list[Step] = []
        self._folder = folder
        self._open: dict[int, str] = {}

    def relative(self, path: Any, dir_fd: int | None = None) -> str | None:
        """The path below the folder, or none when it isn't there."""
        if dir_fd is not None:
            return f"{self._open[dir_fd]}/{path}" if dir_fd in self._open else None
        full = Path(os.fspath(path))
        return str(full.relative_to(self._folder)) if full.is_relative_to(self._folder) else None

    def opened(self, real: Callable[..., int]) -> Callable[..., int]:
        """`os.open`, noting new files and which descriptor is which path."""

        def call(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            where = self.relative(path, dir_fd)
            is_new = flags & os.O_CREAT and where is not None and not os.path.lexists(path)
            descriptor = real(path, flags, mode, dir_fd=dir_fd)
            if where is not None:
                self._open[descriptor] = where
                if is_new:
                    self.steps.append(Step("create", where))
            return descriptor

        return call

    def closed(self, real: Callable[[int], None]) -> Callable[[int], None]:
        """`os.close`, forgetting the descriptor."""

        def call(descriptor: int) -> None:
            self._open.pop(descriptor, None)
            real(descriptor)

        return call

    def on_descriptor(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """`os.write` or `os.fsync`."""

        def call(descriptor: int, *data: Any) -> Any:
            done = real(descriptor, *data)
            if descriptor in self._open:
                content = bytes(data[0][:done]) if data else b""
                self.steps.append(Step(kind, self._open[descriptor], data=content))
            return done

        return call

    def on_path(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """`os.mkdir`, `os.unlink` or `os.rmdir`."""

        def call(path: Any, *args: Any, dir_fd: int | None = None) -> None:
            where = self.relative(path, dir_fd)
            real(path, *args, dir_fd=dir_fd)
            if where is not None:
                self.steps.append(Step(kind, where))

        return call

    def renamed(self, real: Callable[..., None]) -> Callable[..., None]:
        """`os.rename` or `os.replace`."""

        def call(source: Any, target: Any) -> None:
            old, new = self.relative(source), self.relative(target)
            real(source, target)
            if old is not None and new is not None:
                self.steps.append(Step("rename", old, new))

        return call

    def linked(self, real: Callable[..., None]) -> Callable[..., None]:
        """`os.symlink`."""

        def call(target: str, path: Any) -> None:
            real(target, path)
            where = self.relative(path)
            if where is not None:
                self.steps.append(Step("symlink", where, target))

        return call


@contextmanager
def recorded(folder: Path) -> Iterator[Recording]:
    """Everything that the block does below `folder`, which is empty."""
    recording = Recording(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", recording.opened(os.open))
        patch.setattr(os, "close", recording.closed(os.close))
        patch.setattr(os, "symlink", recording.linked(os.symlink))
        for name in ("write", "fsync"):
            patch.setattr(os, name, recording.on_descriptor(name, getattr(os, name)))
        for name, kind in (("mkdir", "mkdir"), ("unlink", "remove"), ("rmdir", "remove")):
            patch.setattr(os, name, recording.on_path(kind, getattr(os, name)))
        for name in ("rename", "replace"):
            patch.setattr(os, name, recording.renamed(getattr(os, name)))
        yield recording
