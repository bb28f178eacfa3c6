"""`python -m stylebatch`."""

import sys

from stylebatch.cli import main

sys.exit(main())
