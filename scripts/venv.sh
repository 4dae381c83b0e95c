# Sourced by the other scripts. `dlfx_venv EXTRAS` sees to it that .venv in the repository root holds dlfx with the
# extras (comma-separated, or none) at the versions of requirements.lock. The second time it returns at once.
# Afterwards "$DLFX_PYTHON" is the Python to use. Everything it says goes to stderr.

DLFX_ROOT="$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)"
DLFX_PYTHON="$DLFX_ROOT/.venv/bin/python"

dlfx_say() { printf 'dlfx: %s\n' "$*" >&2; }

# Prints the first Python that runs and is new enough: $PYTHON where that is set, else what is on the PATH.
dlfx_find_python() {
  local candidate version found=""
  local candidates=(python3 python3.14 python3.13 python3.12 python3.11 python)
  if [[ -n "${PYTHON:-}" ]]; then candidates=("$PYTHON"); fi
  for candidate in "${candidates[@]}"; do
    # A version manager leaves names on the PATH that do not run, so ask each.
    version="$("$candidate" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null)" || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
      printf '%s\n' "$candidate"
      return 0
    fi
    found+="${found:+, }$candidate is $version"
  done
  if [[ -n "${PYTHON:-}" ]]; then
    dlfx_say "PYTHON=$PYTHON ${found:+($version) }does not serve: Python 3.11 or later is needed."
  else
    dlfx_say "Python 3.11 or later is needed; ${found:-none was found on the PATH}. Name one with PYTHON=/path/to/python3."
  fi
  return 1
}

# Whether .venv has a Python and the stamp of every extra ("base" is dlfx without extras).
dlfx_is_installed() {
  local name
  [[ -x "$DLFX_PYTHON" ]] || return 1
  for name in base ${1//,/ }; do
    [[ -e "$DLFX_ROOT/.venv/.dlfx-$name-$2" ]] || return 1
  done
}

# Makes .venv, or makes it anew where its Python is gone, and gives it pip.
dlfx_make_venv() {
  local venv="$DLFX_ROOT/.venv" python info
  if ! "$DLFX_PYTHON" -c '' 2>/dev/null; then
    python="$(dlfx_find_python)" || return 1
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
      dlfx_say "$python cannot make a virtual environment: on Debian and Ubuntu install the package python3-venv" \
        "(apt-get install python3-venv), and run this again."
      return 1
    fi
    dlfx_say "making .venv with $python ($("$python" -V 2>&1))"
    "$python" -m venv --clear --without-pip "$venv" || return 1
  elif ! "$DLFX_PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    dlfx_say ".venv has $("$DLFX_PYTHON" -V 2>&1), and Python 3.11 or later is needed: delete .venv and run this again."
    return 1
  fi
  # An installation that was cut short leaves a package without INSTALLER, which is written after its files. pip would
  # take it for installed, so forget it: pip then installs it over what is there.
  for info in "$venv"/lib/python*/site-packages/*.dist-info; do
    if [[ -d "$info" && ! -e "$info/INSTALLER" ]]; then rm -rf -- "$info"; fi
  done
  if ! compgen -G "$venv/lib/python*/site-packages/pip-*.dist-info" >/dev/null; then
    "$DLFX_PYTHON" -m ensurepip >/dev/null || return 1
  fi
}

dlfx_install() {
  local extras="$1" sum="$2" name
  dlfx_make_venv || return 1
  dlfx_say "installing into .venv${extras:+ (with $extras)}: about two minutes the first time"
  # PIP_USER: somebody's setting for other projects, which cannot work in a virtual environment.
  if ! (cd -- "$DLFX_ROOT" && PIP_USER=0 "$DLFX_PYTHON" -m pip install --quiet --quiet --disable-pip-version-check \
    -c requirements.lock -e ".${extras:+[$extras]}" >&2); then
    dlfx_say "the installation did not succeed (see above); running this again goes on from there."
    return 1
  fi
  find "$DLFX_ROOT/.venv" -maxdepth 1 -name '.dlfx-*' ! -name "*-$sum" -delete
  for name in base ${extras//,/ }; do
    : >"$DLFX_ROOT/.venv/.dlfx-$name-$sum"
  done
}

dlfx_venv() {
  local extras="${1:-}" sum
  # The path too: an editable installation points at it, so that a repository that was moved is installed again.
  sum="$({ cat -- "$DLFX_ROOT/requirements.lock" "$DLFX_ROOT/pyproject.toml" && printf '%s' "$DLFX_ROOT"; } | cksum)"
  sum="${sum%% *}"
  dlfx_is_installed "$extras" "$sum" && return 0
  (
    if command -v flock >/dev/null && ! flock -n 9; then
      dlfx_say "another script is installing into .venv; waiting for it"
      flock 9
    fi
    dlfx_is_installed "$extras" "$sum" || dlfx_install "$extras" "$sum"
  ) 9>>"$DLFX_ROOT/.venv.lock"
}
