"""`python -m qualm` is `qualm`."""

import sys

from qualm.cli.app import main

sys.exit(main())
