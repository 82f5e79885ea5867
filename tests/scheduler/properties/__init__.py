"""The policy's properties P1 to P7, each with its bound, its proof, and policies broken on purpose that it catches."""
