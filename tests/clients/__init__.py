"""The shared scenarios of the clients, and a driver for each of them."""
