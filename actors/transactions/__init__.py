"""The coordinators of transactions: who holds a transactional id, which transaction is open, how each one ended."""
