"""How several workers share what there is to do."""
