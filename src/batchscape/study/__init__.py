"""What a study makes: runs, jobs, files."""
