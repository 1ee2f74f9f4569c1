"""What plugs into the ports of the engine; leaves that never import each other."""
