"""The live lab: sites, WAN, guests, observer and client for tests. Shares no code with the product."""
