from tests.helpers.study_files import study

__all__ = ["study"]
