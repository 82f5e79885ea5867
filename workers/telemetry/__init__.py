"""What machine and device tell of a worker: processor time, memory, energy, and how busy an accelerator is."""
