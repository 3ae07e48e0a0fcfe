from .material import make_material


make_material()
