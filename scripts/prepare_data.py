"""Prepares a TFDS data set once as array_record, which dlfx then reads without TensorFlow and without a network.

Exit status: 0 prepared, now or before; 2 something is missing or wrong, said in one line.
"""

import argparse
import contextlib
import difflib
import importlib.util
import json
import os
import shlex
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

INSTALL = f"{shlex.quote(sys.executable)} -m pip install -c requirements.lock -e"  # in the repository


class Refusal(Exception):
    """Why the data set cannot be prepared, in one line."""


def prepared(name: str, data_dir: Path) -> Path | None:
    """The newest version of a data set that is already there, `DIR/NAME/VERSION`; `name` may end in `:VERSION`.

    Raises:
      Refusal: it is there in a format that takes TensorFlow to read.
    """
    dataset, _, version = name.partition(":")
    found = sorted((data_dir / dataset).glob(f"{version or '*'}/dataset_info.json"))
    if not found:
        return None
    kind = json.loads(found[-1].read_text()).get("fileFormat", "tfrecord")
    if kind != "array_record":
        raise Refusal(
            f"{name} is prepared in {found[-1].parent}, but as {kind}, which takes TensorFlow to read; "
            "delete that directory or choose another --data_dir"
        )
    return found[-1].parent


def check_name(name: str, known: Iterable[str]) -> None:
    """Refuses a name that TFDS does not have, with the closest that it has."""
    known, dataset = list(known), name.split("/")[0].split(":")[0]
    if dataset not in known:
        close = difflib.get_close_matches(dataset, known, n=5)
        hint = (
            f"did you mean {', '.join(close)}?" if close else "see https://www.tensorflow.org/datasets/catalog/overview"
        )
        raise Refusal(f"TFDS has no data set {dataset!r}; {hint}")


def reach(url: str) -> None:
    """Asks for the head of a page, through the proxy where one is set. An answer of any kind will do."""
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()


def check_network(urls: Iterable[str], ask: Callable[[str], None] = reach) -> None:
    """Refuses at once when none of the hosts that the data come from answers; TFDS itself would retry for minutes."""
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in urls if url.startswith(("http://", "https://"))}
    failures = []
    for host, url in list(hosts.items())[:3]:
        try:
            return ask(url)
        except OSError as error:
            failures.append(f"{host} ({error})")
    if failures:
        raise Refusal(f"no network: the data come from {' and '.join(failures)}, which cannot be reached")


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns what TFDS raises (an unknown configuration, a file to be fetched by hand, a full disk) into a refusal."""
    try:
        yield
    except Exception as error:
        raise Refusal(f"{name}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def prepare(name: str, data_dir: Path) -> Path:
    """Downloads and prepares a data set; its directory. Imports TFDS and TensorFlow.

    Raises:
      Refusal: TensorFlow is missing, the name is unknown or there is no network.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise Refusal(f"tensorflow-datasets is not installed; run: {INSTALL} .")
    os.environ.setdefault("TFDS_DISABLE_TELEMETRY", "1")
    import tensorflow_datasets as tfds

    # Community sets are looked up on the network; ours are in the package.
    check_name(name, tfds.list_builders(with_community_datasets=False))
    if importlib.util.find_spec("tensorflow") is None:
        raise Refusal(f"preparing a data set needs TensorFlow; run: {INSTALL} '.[tfds]'")
    config = tfds.download.DownloadConfig(
        # Of its own: data sets that share it can take each other's files, where their archives have one name.
        extract_dir=data_dir / "downloads" / "extracted" / name.replace("/", "-").replace(":", "-"),
        try_download_gcs=False,
    )
    with explained(name):
        builder: Any = tfds.builder(name, data_dir=data_dir, file_format="array_record", try_gcs=False)
    if not (Path(builder.data_dir) / "dataset_info.json").exists():
        check_network(builder.url_infos or ())
    with explained(name):
        builder.download_and_prepare(download_dir=data_dir / "downloads", download_config=config)
    return Path(builder.data_dir)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/prepare_data", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "name", metavar="NAME", help="a TFDS name: mnist, or with a configuration and a version NAME/CONFIG:1.0.0"
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        default=Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"),
        help="where data sets are kept (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    arguments = parser.parse_args(argv)
    name, data_dir = arguments.name, arguments.data_dir.expanduser().absolute()
    try:
        if there := prepared(name, data_dir):
            print(f"{name} is already prepared in {there}")
        else:
            print(f"{name} is prepared in {prepare(name, data_dir)}")
    except Refusal as refusal:
        print(f"scripts/prepare_data: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("scripts/prepare_data: stopped; the same command goes on with what was downloaded", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
