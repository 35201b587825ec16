"""How frames that were left out are filled in: moments in time, optical flow, pixels."""
