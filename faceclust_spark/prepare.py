"""What an installation does once, so that no command waits for it: `python -m faceclust_spark.prepare`.

Resolves Delta's jars and keeps where they are, lets numba compile the kernels, and archives the classes that
Spark and Delta load (Java's class data sharing, 200 MB in the user's cache): sessions start in a third of the
time then. None of it is required, and what it leaves is used on `local[...]` only.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from faceclust_spark.config import Config, SparkConfig, SynthConfig
from faceclust_spark.errors import FaceclustError, InfrastructureError
from faceclust_spark.log import configure_logging
from faceclust_spark.prepared import Prepared, installation, prepared
from faceclust_spark.session import get_session
from faceclust_spark.session_settings import local_settings
from faceclust_spark.verbs import demo

log = logging.getLogger(__name__)

_CORES = 2
_FACES = 300  # enough for each kernel to be called
_SCRIPT = "from faceclust_spark.prepare import warm_up; warm_up()"


def prepare() -> Prepared:
    """Do all of it. An archive that this Java does not make costs time only: then there is a warning.

    Raises JavaError, DeltaUnavailableError, or InfrastructureError where Spark does not start.
    """
    found = prepared()
    _remove_left_over(found.jars.parent)
    for file in found:
        file.unlink(missing_ok=True)
    session = get_session(SparkConfig(master="local[1]", driver_memory="1g"))
    jars = _not_of_spark((session.conf.get("spark.jars") or "").split(","))
    session.stop()
    found.jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="faceclust-prepare-") as name:
        script, archive = Path(name) / "warm_up.py", Path(name) / found.archive.name
        script.write_text(_SCRIPT, encoding="utf-8")
        ended = _submit(script, archive, jars)
        if ended.returncode:
            # What Python says there stands in stdout; stderr is Spark's log.
            told = (ended.stdout.strip() or ended.stderr.strip()).rpartition("\n")[2]
            raise InfrastructureError(f"a first gallery was not clustered, so nothing is prepared: {told}")
        if archive.exists():
            shutil.move(archive, found.archive)
        else:
            log.warning("this Java has archived no classes: sessions start as before")
    complete = found.jars.with_suffix(".new")
    complete.write_text("\n".join([installation(), *jars]), encoding="utf-8")
    complete.replace(found.jars)
    return found


def warm_up() -> None:
    """Cluster a small gallery, in the session of spark-submit: what is used once is compiled and loaded."""
    settings = Config(synth=SynthConfig(faces=_FACES))
    with tempfile.TemporaryDirectory(prefix="faceclust-demo-") as folder:
        demo(get_session(), folder, settings)


def _remove_left_over(cache: Path) -> None:
    """Remove what was prepared for installations that have been deleted: 200 MB each."""
    for jars in cache.glob("*.jars"):
        other = Prepared(jars, jars.with_suffix(".jsa"))
        if other.is_left_over():
            for file in other:
                file.unlink(missing_ok=True)


def _submit(script: Path, archive: Path, jars: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the script by spark-submit, whose JVM outlives it by the time that the archive takes."""
    import pyspark

    options = local_settings(_CORES) | {
        "spark.driver.extraClassPath": os.pathsep.join(jars),
        "spark.driver.extraJavaOptions": f'-XX:ArchiveClassesAtExit="{archive}"',
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    }
    given = [word for name, value in options.items() for word in ("--conf", f"{name}={value}")]
    submit = Path(pyspark.__file__).parent / "bin" / "spark-submit"
    command = [str(submit), "--master", f"local[{_CORES}]", *given, str(script)]
    environment = os.environ | {"PYSPARK_PYTHON": sys.executable}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def _not_of_spark(jars: list[str]) -> list[str]:
    """Give the paths of those jars, as URIs, whose libraries Spark does not bring: its own come first anyway.

    On the class path they would come before Spark's, some of them in older versions.
    """
    import pyspark

    own = {_library(path.name) for path in (Path(pyspark.__file__).parent / "jars").glob("*.jar")}
    paths = [Path(url2pathname(urlparse(jar).path)) for jar in jars if jar]
    return [str(path) for path in paths if _library(path.name.partition("_")[2]) not in own]


def _library(jar: str) -> str:
    """Give the name of a library from that of its jar, without the version."""
    return re.sub(r"-\d[^-]*(-[A-Za-z0-9]+)?\.jar$", "", jar)


def main() -> None:
    """Prepare. Leave with a message where Spark does not work; without a place for files, do without."""
    configure_logging()
    try:
        prepare()
    except FaceclustError as error:
        sys.exit(f"faceclust: {error}")
    except (OSError, RuntimeError) as error:  # no home, or none to write to
        log.warning("nothing is kept, and sessions start as before: %s", error)


if __name__ == "__main__":
    main()
