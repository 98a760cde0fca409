"""The coordinators of transactions: the owners of transactional ids, the open transactions, and their outcomes."""
