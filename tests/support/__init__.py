"""What several tests need: tiny models, runs and files, and the command line in processes of its own."""
