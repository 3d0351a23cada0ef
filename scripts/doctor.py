"""`python scripts/doctor.py [overrides]`: see configs/doctor.yaml."""

from zsteer.app.commands import doctor

if __name__ == "__main__":
    doctor()
