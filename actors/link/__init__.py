"""The link: the actor that passes messages between the actors of two nodes, and watches other nodes."""
