"""``python -m neuralcore.cli``"""

from neuralcore.cli import main

main()
