#!/usr/bin/env bash
# Installs Python 3.11, the package that was copied, with its pinned versions,
# and T5X, airio and jestimator from their repositories. After a failure it can
# be run again, and goes on.
#
#   install.sh T5X_COMMIT AIRIO_COMMIT JESTIMATOR_COMMIT
#
# Its last line is `dst_t5x worker K ok`. It does not use the TPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. ./common.sh
t5x=$1 airio=$2 jestimator=$3
number=$(worker_number)
uv_version=0.13.8

# Images of TPU VMs have an older Python than 3.11; uv brings its own.
python3 -m pip install --quiet --user "uv==$uv_version"
uv() { python3 -m uv "$@"; }
[[ -x $venv/bin/python ]] || uv venv --quiet --python 3.11 "$venv"

# What was copied is a checkout, which is a folder, or else a wheel.
package=$root/package/checkout
if [[ ! -d $package ]]; then
  package=$(find "$root/package" -name '*.whl' | head -n 1)
fi
# dst_t5x is installed even if it has this version already: a checkout's code
# changes while its version stays.
uv pip install --quiet --python "$venv/bin/python" --reinstall-package dst_t5x \
  --constraints "$root/package/constraints.txt" \
  "dst_t5x[t5x,tpu] @ file://$package"

# repository NAME URL COMMIT: a checkout of the commit, in $root/NAME.
repository() {
  local name=$1 url=$2 commit=$3
  [[ -d $root/$name/.git ]] || git clone --quiet "$url" "$root/$name"
  if [[ $commit != HEAD ]]; then
    git -C "$root/$name" checkout --quiet --detach "$commit" ||
      { git -C "$root/$name" fetch --quiet &&
        git -C "$root/$name" checkout --quiet --detach "$commit"; }
  fi
}
repository t5x https://github.com/google-research/t5x "$t5x"
repository airio https://github.com/google/airio "$airio"
repository jestimator https://github.com/google-research/jestimator "$jestimator"
PYTHONPATH=$root/t5x:$root/airio:$root/jestimator \
  "$venv/bin/python" -c 'import dst_t5x.hooks, t5x.utils'

# All workers must run the same code; the launcher compares these lines.
for name in t5x airio jestimator; do
  echo "dst_t5x version $name $(git -C "$root/$name" rev-parse HEAD)"
done
echo "dst_t5x worker $number ok"
