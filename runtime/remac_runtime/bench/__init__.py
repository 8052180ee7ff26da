"""`remac bench`: what an encode costs on the machine at hand, and the file that carries it home."""
