"""How Spark's JVM is started: on which Java, and how it compiles.

Java is checked first, as Spark's own message would be a stack trace.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from faceclust_spark.errors import JavaError

JAVA_VERSIONS = (17, 21)
_JAVA_REMEDY = (
    "install Java 17 or 21 (Debian: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17; "
    "conda: conda install openjdk=17) and let JAVA_HOME point at it"
)
_ELSEWHERE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:|^\w+(\.\w+)+$")  # a URI, a table of a catalogue
_LITTLE = 1 << 26  # bytes of files, in which the JVM has no loop that runs for long
# Work of seconds ends before the second compiler has paid: a third of it is compiling. With the first alone
# the default room for compiled code is a fifth, and swept all the time.
_QUICK = ("-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=240m")


def check_java() -> str:
    """Give the path of the Java that Spark would start. Raises JavaError with the remedy."""
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None or not os.access(java, os.X_OK):
        place = f"JAVA_HOME ({home}) holds none that can be run" if home else "there is no java on the PATH"
        raise JavaError(f"Spark needs Java and {place}: {_JAVA_REMEDY}")
    told = subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(?:1\.)?(\d+)', told.stderr + told.stdout)
    version = int(found.group(1)) if found else 0
    if version not in JAVA_VERSIONS:
        name = f"Java {version}" if version else "a Java of unknown version"
        raise JavaError(f"{java} is {name}, Spark needs 17 or 21: {_JAVA_REMEDY}")
    modules = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False)
    if "jdk.incubator.vector" not in modules.stdout:
        raise JavaError(
            f"{java} is a trimmed runtime without the module jdk.incubator.vector, with which Spark does not "
            f"start: {_JAVA_REMEDY}"
        )
    return java


def java_options(quick: bool, archive: Path | None) -> str:
    """Give options for the JVM of a session: an archive of classes, and how it compiles.

    quick: for work of a minute, which a JVM ends sooner that only compiles quickly.
    """
    # A JVM to which the archive does not belong goes without, and need not say so.
    at_hand = (f'-XX:SharedArchiveFile="{archive}"', "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")
    return " ".join([*(at_hand if archive else ()), *(_QUICK if quick else ())])


def holds_little(*sources: str | None, tables: str | None = None) -> bool:
    """Tell whether sources and tables are at most 64 MB of files each, on this machine; tables may be new."""
    new = not tables or not (Path(tables).exists() or _ELSEWHERE.search(tables))
    places = sources if new else (*sources, tables)
    try:
        return all(_bytes_of(Path(place or "")) <= _LITTLE for place in places)
    except OSError:  # not there, or changing at this moment
        return False


def _bytes_of(path: Path) -> int:
    """Give the bytes of a file, or of all in a folder, until they are more than little."""
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    for file in path.rglob("*"):
        total += file.stat().st_size if file.is_file() else 0
        if total > _LITTLE:
            break
    return total
