"""What every step uses: errors, safe files, plain pickles, and a quiet console with a progress bar."""
