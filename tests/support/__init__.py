"""What several test modules share: inputs made by hand, methods whose fate is known, and how commands are called."""
