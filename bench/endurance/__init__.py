"""Everything that an operator does, under load: what fails of it is counted."""
