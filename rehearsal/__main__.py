"""`python -m rehearsal`: rehearse an environment on the AWS emulator."""

from rehearsal.rehearse import main

if __name__ == "__main__":
    raise SystemExit(main())
