"""Images without a container engine: the instructions of a Dockerfile, carried out in a copy-on-write view of this
machine.

The view stands for the base image: it has a Python in a virtual environment, and no other user 1000. Build and run are
one shell script, because the mounts last as long as its namespaces. Needs root, an overlay file system, and the package
index.
"""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

BEGIN = """
set -eu
mount --make-rprivate /
mount -t tmpfs -o size=4g tmpfs "$BASE"
mkdir "$BASE/changes" "$BASE/work" "$BASE/root"
mount -t overlay overlay -o lowerdir=/,upperdir="$BASE/changes",workdir="$BASE/work" "$BASE/root"
cd "$BASE/root"
mount -t proc proc proc
mount --rbind /dev dev
at="$PREFIX"
while [ "$at" != / ]; do chmod o+x ".$at"; at=$(dirname "$at"); done
chroot . sh -c 'if name=$(id -nu 1000 2>&1); then userdel "$name"; fi'
chroot . "$PREFIX/bin/python3" -m venv /usr/local/image-python
export PATH=/usr/local/image-python/bin:/usr/sbin:/usr/bin:/sbin:/bin
"""
RUN = """
cat > "$BASE/inside" <<'end'
set -e
mount -t proc proc proc
mount -t tmpfs -o size=4k tmpfs dev/shm
mount -o remount,bind,ro .
exec chroot --userspec="$OWNER" . "$@"
end
exec unshare --pid --fork --mount --kill-child sh "$BASE/inside" env -i
"""


class Image:
    def __init__(self, dockerfile: str, context: Path) -> None:
        self._context = context
        self._steps: list[str] = []
        self._volumes: list[str] = []
        self._folder = "/"
        self.user = "0:0"
        self.variables: dict[str, str] = {}
        self.entry: list[str] = []
        self.arguments: list[str] = []
        joined = re.sub(r"\\\n\s*", "", dockerfile)
        for line in joined.splitlines():
            word, _, rest = line.partition(" ")
            if line and not line.startswith("#"):
                self._take(word, rest)

    def _take(self, word: str, rest: str) -> None:
        match word:
            case "RUN":
                self._steps.append(f"chroot . sh -c {shlex.quote(f'cd {self._folder} && {rest}')}")
            case "COPY":
                source, target = rest.split()
                place = target if target.startswith("/") else f"{self._folder}/{target}"
                source = f"{self._context / source}{'/.' if (self._context / source).is_dir() else ''}"
                made = f".{place}" if source.endswith("/.") else f".{self._folder}"
                self._steps.append(f"mkdir -p {made} && cp -a {source} .{place}")
            case "WORKDIR":
                self._folder = rest
                self._steps.append(f"mkdir -p .{rest}")
            case "ENV":
                self.variables |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            case "VOLUME":
                self._volumes += json.loads(rest) if rest.startswith("[") else rest.split()
            case "USER":
                self.user = rest
            case "ENTRYPOINT":
                self.entry = json.loads(rest)
            case "CMD":
                self.arguments = json.loads(rest)
            case "FROM" | "EXPOSE" | "STOPSIGNAL":
                pass
            case _:
                raise AssertionError(f"{word} is not among the instructions that can be carried out here")

    def start(
        self,
        base: Path,
        log: Path,
        *,
        tmpfs: Sequence[str],
        variables: Mapping[str, str],
        arguments: Sequence[str] = (),
    ) -> "subprocess.Popen[bytes]":
        """Build the image, and run it as process 1 with a read-only root, as `docker run --read-only --tmpfs -e` does.

        A volume has the owner of its folder in the image."""
        base.mkdir()
        volumes = [
            f'mount -t tmpfs -o size=512m,mode=755,uid=$(stat -c %u .{each}),gid=$(stat -c %g .{each}) tmpfs ".{each}"'
            for each in self._volumes
        ]
        mounts = [
            f'mkdir -p ".{each}"; mount -t tmpfs -o size=16m,mode=1777 tmpfs ".{each}"' for each in tmpfs
        ]
        given = {
            "HOME": "/",
            "PATH": "/usr/local/image-python/bin:/usr/bin:/bin",
            **self.variables,
            **variables,
        }
        command = [*self.entry, *(arguments or self.arguments)]
        inner = f"cd {self._folder} && exec {shlex.join(command)}"
        words = [*(f"{name}={value}" for name, value in given.items()), "sh", "-c", inner]
        script = "\n".join([BEGIN, *self._steps, *volumes, *mounts, RUN.rstrip() + " " + shlex.join(words)])
        environment = {
            "BASE": str(base),
            "OWNER": self.user,
            "PREFIX": sys.base_prefix,
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        with log.open("wb") as output:
            return subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", script], env=environment, stdout=output, stderr=output
            )


def checkout(files: Sequence[Path], root: Path, target: Path) -> Path:
    """Copy files of a checkout, as a context of a build."""
    for file in files:
        place = target / file.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, place)
    return target
