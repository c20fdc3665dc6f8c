"""How an image comes into the inactive slot and into use, by what the device boots with."""
