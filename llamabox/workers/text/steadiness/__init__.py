"""Whether a row of the loaded model comes out the same in any company: tried at a load, and known at the next."""
