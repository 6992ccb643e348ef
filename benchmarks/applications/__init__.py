"""The examples of applications with real models and texts, and what their how-tos say of them."""
