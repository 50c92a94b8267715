"""One generation request on its way. Knows no API's words."""
