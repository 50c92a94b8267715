"""Where the system's own files are: a machine, or a folder that stands for one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class System:
    """Files of the kernel below `root`, which is a machine's own but in tests."""

    root: Path = Path("/")

    @property
    def proc(self) -> Path:
        """What the kernel says of this process."""
        return self.root / "proc" / "self"

    @property
    def meminfo(self) -> Path:
        return self.root / "proc" / "meminfo"

    def text(self, name: str) -> str:
        """A file's text; empty where it cannot be read."""
        try:
            return (self.root / name).read_text(errors="replace")
        except OSError:
            return ""

    def there(self, pattern: str) -> list[Path]:
        """Files by a pattern such as `dev/nvidia[0-9]*`, in order."""
        return sorted(self.root.glob(pattern))
