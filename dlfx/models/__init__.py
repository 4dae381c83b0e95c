"""Networks, one file per paper or family, in folders by task."""
