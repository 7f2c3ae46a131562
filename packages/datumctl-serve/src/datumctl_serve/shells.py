"""Completion scripts for shells; each asks the command itself, by the protocol that datumctl speaks.

Rules: a script holds no candidates, so it never grows old.
What must not live here: candidates.
"""

from __future__ import annotations

from typing import Final

__all__ = ["script"]

_BASH: Final = """\
_datumctl_serve() {
  local line words
  words=("${COMP_WORDS[@]:1:COMP_CWORD}")
  COMPREPLY=()
  while IFS= read -r line; do
    case "$line" in :*) ;; *) COMPREPLY+=("${line%%$'\\t'*}") ;; esac
  done < <(datumctl-serve __complete "${words[@]}" 2>/dev/null)
}
complete -o default -F _datumctl_serve datumctl-serve"""

_ZSH: Final = """\
#compdef datumctl-serve
_datumctl_serve() {
  local -a found
  local line
  while IFS= read -r line; do
    case "$line" in
      :*) ;;
      *) found+=("${${line%%$'\\t'*}//:/\\\\:}:${line#*$'\\t'}") ;;
    esac
  done < <(datumctl-serve __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
  _describe 'datumctl-serve' found || _files
}
compdef _datumctl_serve datumctl-serve"""

_FISH: Final = """\
function __datumctl_serve
  set -l words (commandline -opc) (commandline -ct)
  datumctl-serve __complete $words[2..-1] 2>/dev/null | string match -v -r '^:'
end
complete -c datumctl-serve -a '(__datumctl_serve)'"""


def script(shell: str) -> str:
    """Return the script for bash, zsh or fish."""
    return {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[shell]
