"""`python -m rct_ray`: the command line where its script is not on the path, as in a job on a cluster."""

from rct_ray.cli import main

if __name__ == "__main__":
    main()
