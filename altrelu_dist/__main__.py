"""``python -m altrelu_dist``: the same as the ``altrelu`` command."""

from altrelu_dist.cli import main

if __name__ == "__main__":
    main()
