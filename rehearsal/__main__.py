"""`python -m rehearsal`: rehearse an environment against the AWS emulator."""

from rehearsal.rehearse import main

if __name__ == "__main__":
    main()
