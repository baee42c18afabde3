# SPDX-License-Identifier: Apache-2.0
"""`python -m scn_fx.cli`: the command `scn-fx` for a source tree that is not installed."""

from scn_fx.cli import main

if __name__ == "__main__":
    main()
