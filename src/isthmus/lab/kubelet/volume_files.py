"""Writes the files of volumes so that a reader sees all of the old ones or all of the new ones."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from isthmus.lab.kubelet.volumes import File

CURRENT = "..data"
"""The link that each file's visible name goes through. Source: kubelet, AtomicWriter; programs watch this very name."""
_SET_GROUP_ID = 0o2000


def make_folder(path: Path, group: int | None, *, writable: bool) -> None:
    """Make the root of a volume: of *group* (an fsGroup) if there is one."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o777 if writable else 0o755)
    if group is not None:
        os.chown(path, 0, group)
        path.chmod(_SET_GROUP_ID | (0o777 if writable else 0o755))


def write_files(folder: Path, files: Mapping[str, File], group: int | None) -> None:
    """Let *folder* hold exactly *files*.

    All files change at one moment: when the link ``..data`` is made to name another folder.
    """
    fresh = folder / f"..{uuid.uuid4().hex}"
    fresh.mkdir(mode=0o755)
    fresh.chmod(0o755)
    for name, file in files.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        if group is not None:
            os.chown(path, 0, group)
        # The group may read what it owns. Source: kubelet, SetVolumeOwnership.
        path.chmod(file.mode | (0o440 if group is not None else 0))
    link = folder / CURRENT
    before = folder / os.readlink(link) if link.is_symlink() else None
    fresh_link = folder / f"{CURRENT}_tmp"
    fresh_link.symlink_to(fresh.name)
    fresh_link.replace(link)
    visible = {name.partition("/")[0] for name in files}
    for name in visible:
        path = folder / name
        if not path.is_symlink() and not path.exists():  # what exists is a place where another volume is mounted
            path.symlink_to(Path(CURRENT) / name)
    for path in folder.iterdir():
        if path.is_symlink() and not path.name.startswith("..") and path.name not in visible:
            path.unlink()
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)
