"""Prepares a TFDS data set once as array_record, which dlfx then reads without TensorFlow and without a network.

Exit status: 0 prepared, now or before; 2 something is missing or wrong, said in one line.
"""

import argparse
import difflib
import importlib.util
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

INSTALL = "python -m pip install -c requirements.lock -e '.[tfds]'"


class Refusal(Exception):
    """Why the data set cannot be prepared, in one line."""


def prepared(name: str, data_dir: Path) -> Path | None:
    """The newest version of a data set that is already there, `DIR/NAME/VERSION`; `name` may end in `:VERSION`."""
    dataset, _, version = name.partition(":")
    found = sorted((data_dir / dataset).glob(f"{version or '*'}/dataset_info.json"))
    return found[-1].parent if found else None


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
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=10).close()
    except urllib.error.HTTPError:
        pass


def check_network(urls: Iterable[str], ask: Callable[[str], None] = reach) -> None:
    """Refuses at once when a host that the data come from does not answer; TFDS itself would retry for minutes."""
    hosts = {urllib.parse.urlsplit(url).netloc: url for url in urls if url.startswith(("http://", "https://"))}
    for host, url in sorted(hosts.items()):
        try:
            ask(url)
        except OSError as error:
            raise Refusal(f"no network: {host}, where the data come from, does not answer ({error})") from error


def prepare(name: str, data_dir: Path) -> Path:
    """Downloads and prepares a data set; its directory. Imports TFDS and TensorFlow.

    Raises:
      Refusal: TensorFlow is missing, the name is unknown or there is no network.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise Refusal("tensorflow-datasets is not installed; run: python -m pip install -c requirements.lock -e .")
    import tensorflow_datasets as tfds

    # Community sets are looked up on the network; ours are in the package.
    check_name(name, tfds.list_builders(with_community_datasets=False))
    if importlib.util.find_spec("tensorflow") is None:
        raise Refusal(f"preparing a data set needs TensorFlow; run: {INSTALL}")
    try:
        builder: Any = tfds.builder(name, data_dir=data_dir, file_format="array_record", try_gcs=False)
    except (ValueError, tfds.core.DatasetNotFoundError) as error:  # such as an unknown configuration
        raise Refusal(f"{name}: {' '.join(str(error).split())}") from error
    check_network(builder.url_infos)
    config = tfds.download.DownloadConfig(
        # Two data sets that share one directory can take each other's files, when an archive of one has the other's name.
        extract_dir=data_dir / "downloads" / "extracted" / name.replace("/", "-").replace(":", "-"),
        try_download_gcs=False,
    )
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
