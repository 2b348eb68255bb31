"""The project's files as git knows them, and what each depends on."""
import functools
import hashlib
import re

from . import util

_INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]', re.MULTILINE)


def tracked(*patterns):
    """Files that are tracked, or new and not ignored, by git's path patterns; relative to the root."""
    listed = util.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
                      cwd=util.ROOT, stderr=None).stdout
    return sorted(name for name in set(listed.split("\0")) if name and (util.ROOT / name).is_file())


def changed():
    """Files that differ from the last commit; in a clean tree, those that the last commit changed."""
    def names(*arguments):
        return set(util.run(["git", *arguments, "-z"], cwd=util.ROOT, check=False, stderr=None).stdout.split("\0")) - {""}

    found = names("diff", "--name-only", "HEAD") | names("ls-files", "--others", "--exclude-standard")
    return found or names("diff", "--name-only", "HEAD~1", "HEAD")


@functools.lru_cache(maxsize=None)
def _own_includes(name):
    text = (util.ROOT / name).read_text(encoding="utf-8", errors="replace")
    folder = name.rsplit("/", 1)[0] if "/" in name else "."
    found = []
    for include in _INCLUDE.findall(text):
        for candidate in (f"include/{include}", include, f"{folder}/{include}"):
            if (util.ROOT / candidate).is_file():
                found.append(candidate)
                break
    return tuple(found)


def closure(name):
    """The file and every file of ours that it includes, however deep."""
    seen, todo = set(), [name]
    while todo:
        current = todo.pop()
        if current not in seen:
            seen.add(current)
            todo += _own_includes(current)
    return sorted(seen)


@functools.lru_cache(maxsize=None)
def _digest(name):
    return hashlib.sha256((util.ROOT / name).read_bytes()).hexdigest()


class Passed:
    """Remembers what passed, by the content of everything that could change the answer."""

    def __init__(self, kind, *salt):
        self._directory = util.CACHE / kind
        self._directory.mkdir(parents=True, exist_ok=True)
        self._salt = "\n".join(str(part) for part in salt)

    def _path(self, name):
        text = self._salt + "".join(f"\n{file} {_digest(file)}" for file in closure(name))
        return self._directory / hashlib.sha256(f"{name}\n{text}".encode()).hexdigest()[:32]

    def knows(self, name):
        return self._path(name).exists()

    def add(self, name):
        self._path(name).touch()
