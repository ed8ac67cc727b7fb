"""Every picture, mask and film comes in here, and what is made leaves from here with its recipe inside."""
