"""Matrix factorization into parts: A ~ Z D, as functions of arrays and as estimators over them."""
