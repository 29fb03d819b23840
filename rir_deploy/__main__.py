"""python -m rir_deploy is rir-deploy."""

from rir_deploy.cli import main

main()
