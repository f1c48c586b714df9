"""The check of Java before Spark is started, whose own message would be a stack trace."""

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
