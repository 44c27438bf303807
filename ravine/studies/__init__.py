"""Problems of papers that fit no recipe to data: modules with ``SCALES``, ``found``, ``words``, ``picture``."""
